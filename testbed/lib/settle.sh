#!/usr/bin/env bash
# Runs in an emulated machine before anything else, while it has one CPU: what makes the
# kernel patch its own code when it is first used is used now. QEMU can keep a stale
# translation of such code where another CPU runs it (see machine.sh), and packets are
# received all the time. A kernel of one's own may lack what is used here: then nothing patches
# that, and what needs it says so itself.
PATH=$PATH:/usr/sbin:/sbin

# Filters at ingress, as "faults cut-rdma" makes them: one that matches nothing keeps
# that path in the kernel's code until the end.
modprobe -qa sch_ingress cls_u32 act_gact
tc qdisc add dev lo clsact &&
  tc filter add dev lo ingress protocol 0x88b5 u32 match u32 0 0 action pass

# A memory control group, as "faults memory" makes one.
{ echo +memory >/sys/fs/cgroup/cgroup.subtree_control; } 2>/dev/null
mkdir /sys/fs/cgroup/settle && rmdir /sys/fs/cgroup/settle
exit 0
