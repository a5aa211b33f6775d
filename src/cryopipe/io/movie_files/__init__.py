"""Movies in their formats: TIFF, MRC and EER, read frame by frame and written whole."""
