"""Reading and writing the file formats of the field: STAR, MRC, TIFF, EER. No other package uses mrcfile or tifffile."""
