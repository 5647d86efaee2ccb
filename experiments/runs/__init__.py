"""A run: its model and feeds, its workdir, and the loop around its steps."""
