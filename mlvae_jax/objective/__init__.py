"""The group ELBO (paper eqs. 3-5), and penalties that are added to it."""
