"""The embedded Label Studio of a workspace: installation, start, accounts, stop."""
