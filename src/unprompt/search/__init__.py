"""The online side: a picture in, its top-k prompts, neighbours, fragments and a final prompt out."""
