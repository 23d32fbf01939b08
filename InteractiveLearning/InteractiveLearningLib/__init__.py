"""Prompts, proxy masks, guidance, sessions and learning from accepted cases. Builds on RefSegLib, never the other way round."""
