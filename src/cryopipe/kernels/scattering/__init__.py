"""What a simulated movie and simulated particles are summed from: atoms on a grid, blobs in images, images in the field."""
