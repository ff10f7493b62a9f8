"""Text and episodes: corpora, recurrent networks, the Neural Turing Machine."""
