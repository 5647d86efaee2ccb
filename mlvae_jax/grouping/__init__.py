"""How the members of a group make up one posterior (paper eqs. 6-7)."""
