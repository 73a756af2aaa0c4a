"""A workspace: a folder with the catalogue and the store; its status and its verification."""
