"""A run: its model and feeds, its workdir, the loop around its steps."""
