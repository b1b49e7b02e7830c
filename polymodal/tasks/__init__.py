"""What is done with vectors: one file per task; each takes records, vectors or scores, and none reads a catalogue."""
