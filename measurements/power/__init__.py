"""What `validator power` measured of the embedded benchmarks, and the pages that are made of it."""
