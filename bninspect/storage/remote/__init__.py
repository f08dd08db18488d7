"""Objects behind URLs: listings, ranges, the cache, requests. The only user of fsspec."""
