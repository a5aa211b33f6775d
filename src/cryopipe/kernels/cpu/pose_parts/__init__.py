"""What the fused loops of poses are made of: blocks of Fourier pixels, their columns, and damped steps."""
