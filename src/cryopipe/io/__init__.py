"""Reading and writing the field's files: STAR, MRC, TIFF, EER. No other package knows mrcfile or tifffile."""
