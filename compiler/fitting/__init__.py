"""Coefficients by least squares: on Gram matrices of the reference run, and along a policy's own trajectory."""
