"""The colours of networks and classes in figures and pictures."""

# Petroff, "Accessible color sequences for data visualization", https://arxiv.org/abs/2107.02270:
# told apart with any colour vision, on light and on dark.
COLOURS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
