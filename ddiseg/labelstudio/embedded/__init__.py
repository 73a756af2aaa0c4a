"""A Label Studio of the workspace's own: installed, started, given its accounts, stopped."""
