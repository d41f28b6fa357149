# cuDNN's frontend, where there is CUDA: headers of C++, by which train/attention_cudnn.cpp is
# built. It is optional. libcudnn itself is opened by name when a program needs it.
#
# STRATA_CUDNN_FRONTEND and STRATA_CUDNN_INCLUDE: the folders of cudnn_frontend.h and cudnn.h,
# looked for where tools/get_cudnn.sh puts them, in CUDNN_HOME and in the toolkit.
# Afterwards strata_cudnn_version is the frontend's, or empty, and strata_cudnn_absent says why.

set(strata_cudnn_version "")
set(strata_cudnn_absent "this build has no CUDA: build with STRATA_CUDA=ON")
if(NOT STRATA_CUDA)
  return()
endif()

set(strata_cudnn_least 1.32)
set(strata_cudnn_remedy "run tools/get_cudnn.sh and configure again")
set(places ${PROJECT_SOURCE_DIR}/build/cudnn ENV CUDNN_HOME)
find_path(STRATA_CUDNN_FRONTEND cudnn_frontend.h HINTS ${places} PATH_SUFFIXES include
          PATHS ${CUDAToolkit_INCLUDE_DIRS} /opt/cudnn)
find_path(STRATA_CUDNN_INCLUDE cudnn.h HINTS ${places}
          PATH_SUFFIXES include nvidia/cudnn/include
          PATHS ${CUDAToolkit_INCLUDE_DIRS} /opt/cudnn)

if(NOT STRATA_CUDNN_FRONTEND)
  set(strata_cudnn_absent "no cudnn_frontend.h was found: ${strata_cudnn_remedy}")
  return()
elseif(NOT STRATA_CUDNN_INCLUDE)
  set(strata_cudnn_absent "no cudnn.h was found: ${strata_cudnn_remedy}")
  return()
endif()

file(STRINGS ${STRATA_CUDNN_FRONTEND}/cudnn_frontend_version.h lines
     REGEX "define CUDNN_FRONTEND_(MAJOR|MINOR|PATCH)_VERSION")
string(REGEX MATCHALL "[0-9]+" numbers "${lines}")
list(JOIN numbers "." found)
if(found VERSION_LESS strata_cudnn_least)
  set(strata_cudnn_absent "cuDNN's frontend is ${found}, ${strata_cudnn_least} is needed: \
${strata_cudnn_remedy}")
  return()
endif()
set(strata_cudnn_version ${found})
enable_language(CXX)

# One C++ file, as strict as the C ones where that has a meaning. Optimised, with debug
# information, the headers take a compiler two minutes and 2 GiB; a call runs little of them.
# Inline functions stay unique to a program without the linker's help.
set(strata_cudnn_flags -Wall -Wextra -Wshadow -O0 -g0 -fvisibility=hidden -fno-gnu-unique)
if(STRATA_WERROR)
  list(APPEND strata_cudnn_flags -Werror)
endif()
