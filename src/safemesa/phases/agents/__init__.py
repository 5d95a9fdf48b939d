"""Who acts and learns in Phase 3."""
