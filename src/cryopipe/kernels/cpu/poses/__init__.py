"""The fused loops of poses on the CPU: how well they explain images, and the steps from them."""
