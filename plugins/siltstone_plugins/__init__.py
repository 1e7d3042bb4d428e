"""The plugins that come with Siltstone, one module each; they use the hooks that anybody may use."""
