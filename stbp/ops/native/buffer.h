// Memory for one call: aligned to a cache line, not initialised unless asked.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace stbp {

template <class T>
class Buffer {
   public:
    Buffer() = default;
    explicit Buffer(size_t n) : size_(n) {
        size_t bytes = (n * sizeof(T) + 127) / 64 * 64;  // at least one vector more than asked for
        data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
        if (!data_) std::abort();
    }
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        swap(other);
        return *this;
    }
    ~Buffer() { std::free(data_); }

    Buffer& zero() {
        if (data_) std::memset(data_, 0, size_ * sizeof(T));
        return *this;
    }
    T* data() { return data_; }
    const T* data() const { return data_; }
    size_t size() const { return size_; }
    T& operator[](size_t i) { return data_[i]; }
    const T& operator[](size_t i) const { return data_[i]; }
    explicit operator bool() const { return data_ != nullptr; }

   private:
    void swap(Buffer& other) {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
    }
    T* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace stbp
