# CUDA, where STRATA_CUDA says so: the language, the architectures, the toolkit's runtime.
#
# The runtime is linked statically: a program that was built with CUDA starts where there is
# neither toolkit nor driver, and says so when it is asked for a GPU.

if(NOT STRATA_CUDA)
  return()
endif()

if(NOT STRATA_NVCC AND NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  message(FATAL_ERROR "STRATA_CUDA: no nvcc in PATH, CUDA_HOME or /usr/local/cuda: install the "
                      "CUDA toolkit, or set CMAKE_CUDA_COMPILER")
endif()
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  set(CMAKE_CUDA_COMPILER ${STRATA_NVCC})
endif()

# A100 and RTX 4090; H100 and H200, whose PTX is carried too, for what lies between; B200; RTX
# 5090. Those that this toolkit knows. Must be set before the language is enabled.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  execute_process(COMMAND ${STRATA_NVCC} --list-gpu-arch OUTPUT_VARIABLE known)
  string(REGEX MATCHALL "[0-9]+" known "${known}")
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
  foreach(architecture 100 120)
    if(architecture IN_LIST known)
      list(APPEND CMAKE_CUDA_ARCHITECTURES ${architecture}-real)
    endif()
  endforeach()
endif()
if(CMAKE_C_COMPILER_LAUNCHER AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_C_COMPILER_LAUNCHER})
endif()

enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)

# Exceptions leave symbols of their own in every object; kernels throw none.
set(strata_cuda_flags -Xcompiler=-Wall,-Wextra,-fno-exceptions)
if(STRATA_WERROR)
  list(APPEND strata_cuda_flags --Werror=all-warnings -Xcompiler=-Werror)
endif()

# What decides bits: nothing is contracted, flushed or approximated.
set(strata_cuda_exact_flags -fmad=false -ftz=false -prec-div=true -prec-sqrt=true)
