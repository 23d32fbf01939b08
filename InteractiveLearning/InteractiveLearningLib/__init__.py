"""Prompts, proxy masks, guidance, sessions, learning from accepted cases. Builds on RefSegLib, never the reverse."""
