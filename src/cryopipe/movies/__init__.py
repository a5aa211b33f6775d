"""Stage movies: from raw movies to aligned, screened micrographs."""
