"""Work on more than one machine: the same jobs as on this one, on the workers of a Ray cluster.

`job` says what workers do, `ray_cluster` connects and checks the cluster, `ray_nodes` asks each of its
nodes, `ray_pool` runs a job on a pool of actors. Ray is imported in these three files alone.
"""
