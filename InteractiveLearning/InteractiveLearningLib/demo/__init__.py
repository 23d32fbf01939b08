"""The whole loop on real heads that any machine can get: what `refseg demo` shows."""
