"""What is measured of critics and of runs, beside what Phase 3 writes."""
