"""Files by URI, local, in S3 or on the Hugging Face hub, with one set of errors."""
