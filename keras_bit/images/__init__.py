"""From an image, as a file or as pixels, to the float32 batch that BiT expects, with and without TensorFlow."""
