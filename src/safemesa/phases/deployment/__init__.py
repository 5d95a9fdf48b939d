"""Phase 3, compiled or around a simulator, and what it writes."""
