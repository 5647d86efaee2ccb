"""Every setting of a run: presets, and the flags that override them."""
