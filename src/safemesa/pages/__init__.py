"""Pages that need no other file: markup, tables and charts, without a library."""
