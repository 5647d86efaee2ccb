"""Entry points: flags, files and pictures around the library mlvae_jax."""
