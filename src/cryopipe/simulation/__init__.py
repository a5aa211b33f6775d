"""Movies whose truth is known: atoms, potential, ice, motion, camera. Independent of the engines that it judges."""
