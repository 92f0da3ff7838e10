"""trainpack: a training script in, a tested image on a Picsellia ModelVersion out."""

__version__ = "0.1.0"
