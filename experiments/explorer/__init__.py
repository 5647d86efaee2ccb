"""The explorer of codes in a report: a page that decodes as you drag."""
