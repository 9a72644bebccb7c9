"""What is compared with what, what people have seen of it, and how far a study is."""
