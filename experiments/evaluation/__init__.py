"""The sections of an evaluation: their numbers, tables and charts."""
