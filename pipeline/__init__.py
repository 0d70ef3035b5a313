"""What is computed: corpora, capture, joint spaces, maps and measures, as functions of arrays."""
