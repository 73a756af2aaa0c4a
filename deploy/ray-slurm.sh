#!/usr/bin/env bash
# ddiseg on the nodes of a Slurm allocation, as one Ray cluster: see docs/cluster.md.
#   sbatch --nodes 4 deploy/ray-slurm.sh prelabel
# The workspace ($DDISEG_WORKSPACE), its store and the virtual environment lie on a shared disk.
#SBATCH --job-name=ddiseg
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=1
#SBATCH --mem=64G
#SBATCH --time=12:00:00
set -euo pipefail

: "${DDISEG_WORKSPACE:?name the workspace, on a shared disk}"
source "${DDISEG_VENV:?name the virtual environment, on a shared disk}/bin/activate"

# Who has the token may use the cluster; Slurm gives the variables to the other nodes.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head_address=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 20000)) # another job may use the same node
limits=(--num-cpus "${SLURM_CPUS_PER_TASK:-1}" --num-gpus "${SLURM_GPUS_PER_TASK:-0}"
  --temp-dir "/tmp/ray-$SLURM_JOB_ID" --block)

srun --overlap --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" \
  ray start --head --node-ip-address "$head_address" --port "$port" --include-dashboard false "${limits[@]}" &
for _ in $(seq 60); do
  ray status --address "$head_address:$port" >/dev/null 2>&1 && break
  sleep 1
done
workers=$((${#nodes[@]} - 1))
if [ "$workers" -gt 0 ]; then
  srun --overlap --nodes="$workers" --ntasks="$workers" --exclude="${nodes[0]}" \
    ray start --address "$head_address:$port" "${limits[@]}" &
  until [ "$(ray status --address "$head_address:$port" | grep -c '^ 1 node_')" -ge "${#nodes[@]}" ]; do sleep 1; done
fi

# The command runs on the first node, which this script runs on. Whatever ends it, the same sbatch goes on from there.
ddiseg "$@" --engine ray --ray-address "$head_address:$port"
