"""Measures of codes: what they predict, and how well they recognise groups."""
