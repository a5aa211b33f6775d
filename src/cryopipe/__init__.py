"""cryopipe: cryo-EM single-particle analysis from movies to a refined, validated map."""

__version__ = "0.1.0"
