"""Starting runs on other machines: TPU VMs and SLURM clusters."""
