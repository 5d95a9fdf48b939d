#!/usr/bin/env bash
# A SLURM of one node, this machine, for tests: its daemons, configuration and state live in a folder.
#
#   scripts/one_node_slurm.sh start FOLDER   # prints FOLDER/slurm.conf, for SLURM_CONF
#   scripts/one_node_slurm.sh stop FOLDER
#
# Needs root and Debian's packages: apt-get install slurm-wlm
# Exit code 3: it cannot start here; the reason is on standard error.
set -euo pipefail

cannot() {
  echo "one_node_slurm: $*" >&2
  exit 3
}

stop_daemon() {
  if [[ -s $1 ]]; then
    kill "$(cat "$1")" 2>/dev/null || true
  fi
}

write_configuration() {
  local name cpus memory
  name=$(hostname -s)
  cpus=$(nproc)
  memory=$(awk '/^MemTotal:/ { print int($2 / 1024 * 0.9) }' /proc/meminfo)
  cat >"$folder/slurm.conf" <<CONFIGURATION
ClusterName=one
SlurmctldHost=$name(127.0.0.1)
SlurmctldPort=${SLURM_TEST_PORT:-26817}
SlurmdPort=$((${SLURM_TEST_PORT:-26817} + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
MpiDefault=none
# No control groups: they cannot be had in most containers.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
JobRequeue=1
ReturnToService=2
SchedulerParameters=sched_min_interval=100000,requeue_delay=1
NodeName=$name NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONFIGURATION
}

start() {
  for program in munged slurmctld slurmd sbatch srun squeue scontrol; do
    PATH=$PATH:/usr/sbin command -v "$program" >/dev/null ||
      cannot "$program is missing; install the packages: apt-get install slurm-wlm"
  done
  [[ $(id -u) -eq 0 ]] || cannot "it needs root, because slurmd starts jobs for any user"
  mkdir -p "$folder"/{munge,state,spool}
  chmod 0755 "$folder/munge"
  write_configuration
  (umask 077 && head -c 1024 /dev/urandom >"$folder/munge/key")
  munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" \
    --seed-file="$folder/munge/seed" || cannot "munged failed; see $folder/munge/log"
  export SLURM_CONF=$folder/slurm.conf
  slurmctld || cannot "slurmctld failed; see $folder/slurmctld.log"
  slurmd || cannot "slurmd failed; see $folder/slurmd.log"
  for _ in $(seq 60); do
    if [[ $(sinfo --noheader --format=%t 2>/dev/null) == idle ]]; then
      echo "$folder/slurm.conf"
      return
    fi
    sleep 0.5
  done
  sinfo >&2 || true
  tail -n 5 "$folder"/slurm*.log >&2 || true
  stop
  cannot "the node did not become idle within 30 s"
}

stop() {
  export SLURM_CONF=$folder/slurm.conf
  scancel --user="$(id -un)" 2>/dev/null || true
  # What is left of jobs reports to the daemons, and would wait for them.
  for _ in $(seq 40); do
    [[ -n $(squeue --noheader 2>/dev/null) ]] || break
    sleep 0.5
  done
  stop_daemon "$folder/slurmd.pid"
  stop_daemon "$folder/slurmctld.pid"
  stop_daemon "$folder/munge/pid"
}

[[ $# -eq 2 && ($1 == start || $1 == stop) ]] || {
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
}
PATH=$PATH:/usr/sbin
mkdir -p "$2"
folder=$(cd "$2" && pwd)
"$1"
