"""The packed store: images decoded once, mapped into memory."""
