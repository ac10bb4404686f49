#!/bin/bash
# Run a command beside a Slurm of one node that is made for it and ended with it:
#   tests/sweeps/slurm/one_node.sh COMMAND...    without one: only look whether it can be done here, and install
# The cluster is this machine: real sbatch, slurmctld, slurmd and munged, with ports and a key of their own, no
# accounting, no cgroups, no systemd. What is absent is installed with apt-get. LOKU_SLURM names its folder.
set -euo pipefail

fail() { echo "error: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "slurm-test: slurmd and apt-get need root, this is $(id -un); run it as root, e.g. in a container"
missing() { for name in sbatch slurmctld slurmd munged; do command -v $name >/dev/null || echo $name; done; }
if [ -n "$(missing)" ]; then
    command -v apt-get >/dev/null || fail "slurm-test: no $(missing | tr '\n' ' ')and no apt-get to install slurm-wlm and munge with"
    log=$(mktemp)
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge; } >"$log" 2>&1 ||
        fail "slurm-test: apt-get could not install slurm-wlm and munge: $(tail -1 "$log") (all of it: $log)"
    rm "$log"
fi
[ $# -gt 0 ] || exit 0

dir=$(mktemp -d /tmp/loku_slurm.XXXXXX)
host=$(hostname -s)
mkdir -m 755 "$dir"/{state,spool,munge}
cat > "$dir/slurm.conf" <<END
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# credentials live for 5 s: a job that is queued again waits for so long, by default for 2 min
AuthInfo=socket=$dir/munge/socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=$host MaxTime=INFINITE State=UP PriorityTier=2
END
export SLURM_CONF=$dir/slurm.conf LOKU_SLURM=$dir

end() {
    scancel --user=0 2>/dev/null || true
    for name in slurmd slurmctld munge/munged; do
        [ -f "$dir/$name.pid" ] || continue
        kill "$(cat "$dir/$name.pid")" 2>/dev/null || true
        for _ in $(seq 100); do [ -f "$dir/$name.pid" ] || break; sleep 0.1; done
    done
    rm -rf "$dir"
}
trap end EXIT

head -c 1024 /dev/urandom > "$dir/munge/key"
chmod 600 "$dir/munge/key"
munged --force --socket="$dir/munge/socket" --key-file="$dir/munge/key" --pid-file="$dir/munge/munged.pid" \
    --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" 2>"$dir/said" || fail "slurm-test: munged: $(tail -1 "$dir/said")"
slurmctld 2>"$dir/said" || fail "slurm-test: slurmctld: $(tail -1 "$dir/said")"
slurmd 2>"$dir/said" || fail "slurm-test: slurmd: $(tail -1 "$dir/said")"
for _ in $(seq 30); do
    [ "$(sinfo --noheader --partition=main --format=%t 2>/dev/null)" = idle ] && break
    sleep 1
done
[ "$(sinfo --noheader --partition=main --format=%t)" = idle ] ||
    fail "slurm-test: the node does not come up: $(tail -1 "$dir/slurmctld.log") / $(tail -1 "$dir/slurmd.log")"
"$@"
