"""What runs on the device's side: CUDA calls, kernels' images and libraries, copies to and fro."""
