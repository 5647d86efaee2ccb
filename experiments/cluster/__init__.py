"""Starting runs elsewhere: on TPU VMs and on SLURM."""
