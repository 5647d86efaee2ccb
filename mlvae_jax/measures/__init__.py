"""What codes predict, and how well they recognise groups."""
